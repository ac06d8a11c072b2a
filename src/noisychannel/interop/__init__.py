"""Others' conventions in, ours out."""
