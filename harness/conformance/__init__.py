"""Requirements and what a run says about them."""
