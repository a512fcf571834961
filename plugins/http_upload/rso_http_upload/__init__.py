"""RSO receiver: STOW-RS and the web uploader."""
