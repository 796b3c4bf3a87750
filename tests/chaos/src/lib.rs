//! Faults on a cluster in containers, under traffic and writes, and the checkers of what it promises meanwhile.
