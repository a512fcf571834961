"""The public test kit for plugin authors."""
