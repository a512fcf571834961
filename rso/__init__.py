"""RSO (Radiology Services Online): teleradiology intake and routing."""
