"""What the device's client costs a device; see __main__.py."""
