"""The wire: what passes through a server beside what passes through others, with a client that checks every byte.

=========== ===================================================================================================
works       the rows: what is sent where, and what must come back
body        what is sent: one block, again and again; as a file of any size, too
client      the C client, which takes the times
pulse       how long /healthz takes, asked by a process of its own; ``liveness`` asks it while transfers run
crowd       what many slow clients at once cost in memory
targets     what Weir is to reach, and whether it does
=========== ===================================================================================================
"""
