"""The model under attack: a frozen, fast copy behind one interface."""
