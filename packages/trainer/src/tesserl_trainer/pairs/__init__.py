"""Stores of preference pairs: making, labelling and inspecting them."""
