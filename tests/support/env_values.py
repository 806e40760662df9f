"""Reads settings in a folder of its own."""

NAME = "CONTROL_PLANE_TEST_VALUE"
