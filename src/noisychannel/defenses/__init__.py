"""What a defender runs: a network, a channel before it, and a decision rule."""

from noisychannel.defenses.defense import Defense, answers, chunks_of, global_noise

__all__ = ["Defense", "answers", "chunks_of", "global_noise"]
