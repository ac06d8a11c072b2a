"""Figure 18 as the authors have it: accuracy in percent of their ResNet-18s, panel → series → strength.

From the spreadsheets beside their code (bandlimited-cnns @81aaa27f, `results/*.xlsx`), the Gaussian panel from the
vectors of their figure; of long series the strengths that our tables and figures show. Strength 0 is no attack.
"""

from collections.abc import Mapping

__all__ = ["PAPER"]

_TENTHS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_SIGMAS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5, 1.7, 2.0)
_COUNTS = (0.0, 10.0, 20.0, 30.0, 50.0, 100.0, 200.0, 300.0, 500.0, 700.0, 1000.0)
_EPSILONS = (0.0, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2)
_DEGREES = _SHIFTS = tuple(float(i) for i in range(21))
_ROUNDS = tuple(float(i) for i in range(1, 22))


def _curves(at: tuple[float, ...], **series: tuple[float, ...]) -> dict[str, dict[float, float]]:
    """Series of one panel, all at the same strengths; keywords are names without their spaces."""
    return {_NAMES[name]: dict(zip(at, values, strict=True)) for name, values in series.items()}


_NAMES = {"full": "0 %", "half": "50 %", "tight": "85 %", "rpa": "RPA", "early": "early stopping",
          "cd_2": "CD 2", "cd_32": "CD 32"}  # fmt: skip

PAPER: Mapping[str, Mapping[str, Mapping[float, float]]] = {
    "gauss": _curves(
        _SIGMAS,
        full=(93.5, 92.5, 87.4, 73.8, 53.0, 33.4, 20.9, 15.0, 12.6, 11.7, 11.2, 10.9, 11.0, 11.2, 11.1),
        half=(92.2, 91.6, 87.5, 78.5, 65.3, 51.6, 38.6, 28.6, 22.1, 18.0, 15.5, 13.0, 11.9, 11.4, 10.9),
        tight=(84.5, 84.2, 82.3, 78.6, 73.4, 67.7, 61.1, 54.3, 47.8, 41.5, 36.0, 28.2, 21.8, 19.8, 16.9),
        rpa=(91.4, 90.3, 84.1, 71.7, 54.0, 37.9, 27.1, 20.4, 16.6, 14.4, 13.1, 11.7, 10.9, 10.7, 10.5),
        early=(86.9, 85.7, 80.7, 70.5, 57.0, 42.7, 31.9, 23.4, 18.1, 15.2, 13.6, 12.1, 11.7, 11.9, 12.7),
    ),
    # 10,000 images.
    "uniform": _curves(
        _TENTHS,
        full=(93.48, 93.19, 91.24, 78.13, 36.74, 13.61, 10.48, 10.1, 9.96, 9.94, 9.96),
        tight=(84.55, 84.07, 82.11, 77.0, 65.84, 48.78, 29.78, 18.79, 13.39, 10.23, 9.49),
    ),
    # 1,000 images.
    "contrast": _curves(
        _TENTHS,
        full=(93.5, 92.9, 91.9, 90.6, 88.5, 85.2, 79.9, 64.0, 33.7, 11.1, 9.1),
        tight=(86.0, 83.9, 82.8, 79.5, 75.3, 69.2, 59.2, 43.8, 26.7, 15.6, 8.7),
    ),
    # 1,000 images; 100 for 32 values. The network with 256 values is another one than above.
    "contrast-cd": _curves(
        _TENTHS,
        full=(93.6, 93.0, 92.0, 91.1, 88.9, 86.6, 79.4, 66.2, 34.0, 9.6, 9.2),
        cd_32=(93.0, 93.0, 92.0, 92.0, 90.0, 88.0, 85.0, 67.0, 34.0, 16.0, 13.0),
        cd_2=(78.2, 76.8, 76.1, 75.8, 74.7, 73.3, 71.2, 70.6, 68.7, 57.7, 7.6),
    ),
    # 10,000 images.
    "pixels": _curves(
        _COUNTS,
        full=(93.48, 72.99, 56.285, 45.765, 35.76, 17.02, 9.85, 9.635, 9.52, 10.295, 8.835),
        tight=(84.55, 81.26, 79.175, 77.055, 73.165, 62.88, 47.495, 37.36, 23.4, 15.09, 8.795),
    ),
    # 200 images.
    "rotation": _curves(
        _DEGREES,
        full=(94, 86, 85, 83, 83, 81.5, 80.5, 78.5, 78.5, 79, 77.5, 76.5, 76, 72.5, 69.5, 71, 72, 69, 66.5, 64, 61.5),
        tight=(84.5, 76.5, 74.5, 72.5, 71.5, 70, 68.5, 66, 65, 65.5, 64, 62.5, 61.5, 58.5, 58, 58, 53.5, 53.5, 53.5,
               54, 52),
    ),
    # 200 images.
    "translation": _curves(
        _SHIFTS,
        full=(94, 86.5, 82, 76, 71.5, 63, 50, 33.5, 23, 12.5, 5.5, 2, 0.5, 0, 1, 0, 0, 0, 0, 0, 0),
        tight=(84.5, 71.5, 62.5, 55, 47, 32, 21, 13.5, 7, 4.5, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0),
    ),
    # 100 images, 150 rounds.
    "local": _curves(
        _ROUNDS,
        full=(52, 26, 22, 14, 13, 9, 8, 7, 6, 3, 4, 1, 3, 2, 3, 2, 2, 0, 0, 0, 0),
        tight=(47, 36, 22, 20, 16, 13, 10, 13, 9, 10, 6, 8, 7, 4, 4, 3, 1, 4, 3, 3, 0),
    ),
    # 1,000 images; logged, not in the paper.
    "fgsm": _curves(
        _EPSILONS,
        full=(93.5, 87.7, 82.7, 76.9, 68.7, 57.5, 49.1, 44.8, 38.8, 14.4, 5.3),
        tight=(86.0, 77.5, 68.7, 60.3, 45.7, 26.5, 15.6, 12.8, 10.1, 5.3, 1.7),
    ),
}  # fmt: skip
