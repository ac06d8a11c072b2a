"""What each check asks, and what each verdict says, in one sentence."""

from noisychannel.audit.verdict import Evaluation

__all__ = ["EXPLAINED", "MEANINGS"]

EXPLAINED: dict[str, str] = {
    "eval-mode": "Dropout and batch statistics, which belong to training, are off.",
    "randomness": "Two equal questions get equal answers, or the defense is treated as random.",
    "independent-draws": "Copies of an example in one batch get noise of their own.",
    "fresh-draws": "Noise is new at every question: it is neither seeded in the network nor computed from the input.",
    "logits": "The network hands out logits of a natural scale, with which losses do not saturate.",
    "input-scaling": "The network takes pixels in [0, 1], as it is given them.",
    "gradient-reaches-input": "Autograd finds a way from the logits to the pixels that is not zero.",
    "gradient-faithful": "The gradient is that of the answers: it agrees with finite differences.",
    "batch-mates": "The answer to an image does not depend on the others in its batch.",
    "batch-size": "An image alone gets the same answer as among others.",
    "no-grad": "The answer is the same whether or not gradients are asked for.",
    "number-of-calls": "The answer does not change once the network was asked often.",
    "eight-bit-grid": "Images off the 8-bit grid, which only an attacker hands in, are answered like those on it.",
    "white-box-beats-black-box": "Attacks with the defense's gradient break what others do; else it misleads.",
    "unbounded-reaches-zero": "An attack that may change every pixel at will leaves nothing standing.",
    "gradients-beat-random": "Random points of the ball break nothing that gradient attacks do not.",
    "many-steps-beat-one": "A single step breaks nothing that many steps do not.",
    "monotone-in-epsilon": "Accuracy does not rise when the attacker may do more.",
    "converged-in-steps": "Twice the steps break nothing more.",
    "converged-in-restarts": "More random starts break nothing more.",
    "gradient-present": "The loss has a slope to follow at the images, however sure the network is.",
    "binarization": "The attack finds adversarials that were planted within its reach.",
    "eot-saturated": "Another doubling of the draws per gradient would win less than a point.",
    "frozen-is-no-harder": "With the randomness frozen and known the attack does no worse; else it is broken.",
    "luck-not-counted": "A wrong answer by luck is no success: attacks are chosen on draws that do not score them.",
    "enough-images": "The headline's interval is as narrow as the budget promises.",
    "answers-all": "The network answered every question, and every image could be attacked.",
    "your-attacks-win-nothing-more": "The attacks that you brought break nothing that ours do not.",
    "certificate-consistency": "Images that are certified at a radius keep their label under the attacks within it.",
}
"""Check → what it asks."""

MEANINGS: dict[Evaluation, str] = {
    "VALID": "The headline can be believed: no check of the attacks failed.",
    "GRADIENT MASKING": "The defense hides the way to its errors: attacks that follow its gradient say too much.",
    "WEAK ATTACK": "The attacks did not do all they could: accuracy under a better one may be lower.",
    "RANDOMNESS-INFLATED": "Randomness hides errors that a more patient attacker finds: the headline says too much.",
    "UNDER-POWERED": "Too few images to tell: the headline's interval is wider than the budget promises.",
    "INCOMPLETE": "Checks on which the verdict rests were not made, or found something that has to be mended first.",
}
"""Verdict on the evaluation → what it says of the headline."""
