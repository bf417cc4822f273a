"""What Grad-CAM and its variants make of a layer."""
