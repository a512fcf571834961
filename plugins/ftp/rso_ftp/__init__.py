"""RSO receiver: FTP over TLS."""
