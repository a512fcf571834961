"""RSO receiver: FTP and FTPS."""
