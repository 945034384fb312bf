"""Weights in and out: Orbax for what a run changes, safetensors for what the world reads and writes.

To add a format, write one file here with `load` or `save`; nothing else in ftjax touches orbax or safetensors.
Readers refuse what is missing, left over or misshapen, by name. Writers write beside the target and rename.
"""
