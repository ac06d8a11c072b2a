"""Rows → numbers and pictures. Computes no prediction."""
