"""Inputs: photographs, made-up images, folders of images, and the image processors."""
