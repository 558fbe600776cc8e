"""Conversions of released data sets, one command each.

Nothing is imported here: ``python -m mmseg_crackssm.datasets.converters.cfd``
would otherwise load its module twice.
"""
