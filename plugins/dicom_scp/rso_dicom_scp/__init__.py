"""RSO receiver: DICOM C-STORE SCP."""
