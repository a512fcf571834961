"""RSO notifier: email."""
