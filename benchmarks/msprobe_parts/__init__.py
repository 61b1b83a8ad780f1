"""Parts of msprobe_agreement.py."""
