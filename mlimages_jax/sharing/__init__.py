# SPDX-License-Identifier: BSD-3-Clause
"""`mlimages push`: a trained model, with a card that says what it is, on the Hugging Face Hub."""


class SharingError(Exception):
    """Something that keeps a model from being shared; the message says what to do."""
