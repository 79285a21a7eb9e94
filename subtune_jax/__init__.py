"""Selective fine-tuning with sparse masked updates."""
