"""noisychannel: is this perturbation defense real?"""
