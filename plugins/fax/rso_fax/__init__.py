"""RSO notifier: fax."""
