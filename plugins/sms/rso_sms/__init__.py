"""RSO notifier: SMS."""
