"""The abstract's five results from the claims that bear on them; where the paper disagrees with itself or its code."""

from collections.abc import Sequence

from noisychannel.experiments.setting import Claim

__all__ = ["CONTRADICTIONS", "DISCREPANCIES", "RESULTS", "abstract"]

# Short name, the abstract's words, and the names of the claims that bear on it. None of them is made on a stand-in.
RESULTS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        "abstract-1",
        "All input perturbation defenses, whether random or deterministic, are equivalent in their efficacy.",
        ("fig01-PGD-equivalent", "fig01-C&W-equivalent"),
    ),
    (
        "abstract-2",
        "Attacks transfer between perturbation defenses, so the attackers need not know the specific type of defense.",
        (
            "table1-retested-own-laplace-best",
            "table1-retested-laplace-breaks",
            "table1-retested-laplace-mostly",
        ),
    ),
    (
        "abstract-3",
        "A tuned sequence of noise layers across a network provides the best empirical robustness.",
        (
            "fig02-d-all-layers-text",
            "fig03-cw-robustnetadv",
            "fig03-pgd-robustnetadv",
            "fig03-combined-robustnetadv",
        ),
    ),
    (
        "abstract-4",
        "Perturbation based defenses offer almost no robustness to adaptive attacks unless observed during training.",
        ("table1-clean-diagonal", "fig02-b-fc", "fig02-b-observed"),
    ),
    (
        "abstract-5",
        "Adversarial examples close to the original show an elevated sensitivity in first and second-order analyses.",
        ("fig16-elevated", "sec33-first", "sec33-second", "sec33-unstable"),
    ),
)


def abstract(claims: Sequence[Claim]) -> tuple[Claim, ...]:
    """A result holds where all claims that bear on it do, does not where none does; undecided in part, or not run."""
    made = {c.name: c for c in claims}
    out: list[Claim] = []
    for name, sentence, bearing in RESULTS:
        said = "; ".join(f"{n} {made[n].verdict if n in made else 'not run'}" for n in bearing)
        verdicts = {made[n].holds if n in made else None for n in bearing}
        verdict = verdicts.pop() if len(verdicts) == 1 else None
        out.append(Claim(name, sentence, verdict, said, "abstract"))
    return tuple(out)


CONTRADICTIONS: tuple[tuple[str, str, str], ...] = (
    (
        "Figure 8: multiple trials improve overall accuracy significantly",
        "K: doing so slightly improves the efficacy of the defense",
        "the gain over a single trial, with its interval",
    ),
    (
        "4.4: the randomized channels are mostly broken, with a maximum accuracy of about 23.8 %",
        "Table 1, row Laplace: 39.15 % (Uniform) and 46.70 % (Laplace)",
        "every cell of the row",
    ),
    (
        "4.4: the maximum drop that FC attacked images cause to other defenses is 12.26 %",
        "Table 1: 91.35 − 78.70 = 12.65 points (Laplace)",
        "the largest difference from the row Empty",
    ),
    (
        "4.4: Laplace attacked images take at least 44.3 % (for the Laplace-based defense itself)",
        "Table 1, column Laplace, rows Empty and Laplace: 91.35 − 46.70 = 44.65 points",
        "the least of six differences from the row Empty, against 44.3",
    ),
    (
        "Table 2: CD with 4 bits keeps 91.9 %",
        "Table 1, row Empty: CD with 4 bits keeps 93.01 % (a sibling network has 91.90 % with 11 values, not 16)",
        "16 values",
    ),
    (
        "4.8: the class with the lowest input gradient is always the class with the highest confidence",
        "M.1: for 99 % of the original images",
        "the share, against 97 %",
    ),
    (
        "Figures 10 and 11: clean accuracy is 88 %",
        "The networks shown have 80.1 to 81.2 % (authors' records); 88.00 % is the undefended one",
        "80.45 % as the authors recorded",
    ),
)
"""(one place, another place, what is checked)."""

DISCREPANCIES: tuple[tuple[str, str, str], ...] = (
    (
        "ε is σ of the Gaussian noise",
        "σ = ε/√3 · range; Laplace's std is √2 times that",
        "take their ε through converters",
    ),
    ("Figures 10, 11: clean accuracy 88 %", "the random networks have 80 %", "say 80 %"),
    (
        "RobustNet (VGG): init noise in front of the first convolution",
        "in front of the second",
        "run both",
    ),
    (
        "ResNet-20: noise of given type and strength before every convolution",
        "first blocks of each stage ignore the settings: Gauss .1",
        "keep it for their networks, not for ours",
    ),
    (
        "adaptive attack through the channel",
        "gradient taken at x, not at C(x)",
        "run both, and with re-tested luck",
    ),
    ("uniform noise of strength ε", "amplitude ε² · range", "both units in Figure 18"),
    (
        "FC 0 % is no compression",
        "8 % of the spectrum fall away; one negative row more is kept",
        "authors' mask as an option",
    ),
    (
        "Figure 1: distortion of the input by the defense",
        "of the defended adversarial from the original; 2.2 times too long for ImageNet",
        "the code's distance, in pixels of [0, 1]",
    ),
    (
        "(not said)",
        "models are chosen by their accuracy on the test set",
        "nothing is chosen on the test split",
    ),
    ("Figure 2: PlainNet", "85 % clean only", "say so; 93 % would be usual"),
    (
        "Figure 18: the whole test set",
        "100 to 10,000 images, by panel",
        "n stands with every number",
    ),
    ("Figure 7: distance from the adversarial image", "from the original", "both"),
    (
        "C&W as in [7]",
        "hands over the last iterate; pixels of exactly 0 or 255 never move",
        "authors' preset and a clean one",
    ),
    (
        "3.3: M₁ is the gradient of class confidence",
        "of cross-entropy, with respect to the normalised input",
        "both, named",
    ),
    ("Figure 17: CD with 32 bits", "32 values per colour", "32 values"),
)
"""(the paper, its code, what we do): the 15 that reading the authors' code brought up."""
