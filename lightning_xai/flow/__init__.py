"""What happens around a reading."""
