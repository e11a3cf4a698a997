"""The insula command, bound to the process that started it: when that one dies, so does this.

``python -m insula.cli.demo.bound PID serve …`` is what the demo starts as its server.
"""

import sys

from insula.adapters.sandbox.confinement import die_with
from insula.cli.main import main

if __name__ == "__main__":
    die_with(int(sys.argv.pop(1)))
    main()
