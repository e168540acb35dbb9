"""`eventq demo`: real jobs over the files of a folder, watched through their events, checked at the end."""

from eventq.cli.demo.command import run_demo

__all__ = ["run_demo"]
