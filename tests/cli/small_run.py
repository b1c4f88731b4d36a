"""The settings of the run that the tests of the commands share: small, because they test the commands."""

SETTINGS = ["size=32", "epochs=1", "batch_size=8", "images=16", "val_images=6", "test_images=5"]
SET_OPTIONS = [part for setting in SETTINGS for part in ("--set", setting)]
