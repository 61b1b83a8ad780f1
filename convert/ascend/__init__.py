"""What Ascend's CANN needs: the operators that its parser knows, and offline models compiled by ATC."""
