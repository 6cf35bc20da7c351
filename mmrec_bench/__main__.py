"""`python -m mmrec_bench` is `mmrec-bench`."""

from mmrec_bench.cli import main

main()
