"""Decoders in processes of their own: what native code does to hostile bytes there stays there.

A process asks `decoders` for a file's samples. Its fork server, started when it is first needed with nothing of ours in
its environment, forks decoders: each gets an open file, and memory to leave samples in, and can neither open another
file nor reach a network, another process or more than a gigabyte. One that crashes, hangs or asks for too much is
killed and replaced. The file that did it in a fresh decoder can't be used; others lose nothing.

    decoders   our side: files in, blocks of samples out, what happened to a decoder → what is wrong with the file
    decoder    their side: one file after the other, until our side is gone
    forking    the fork server
    limits     what a decoder gives up before it sees its first file; seccomp: the part that the kernel enforces
"""
