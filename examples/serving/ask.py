"""Asks a running starling-client over its local socket: ask.py SOCKET SAMPLES.csv prints a class a line. docs/PROTOCOL.md has the bytes."""
import socket, struct, sys

with open(sys.argv[2]) as file:
    samples = [[float(cell) for cell in line.split(",")] for line in file]
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
stream = connection.makefile("rwb")
features = b"".join(struct.pack(f"<{len(sample)}f", *sample) for sample in samples)
question = struct.pack("<BBHI", 1, 1, 0, len(samples)) + features  # no name: the only release there is
stream.write(struct.pack("<I", len(question)) + question)
stream.flush()
answer = stream.read(struct.unpack("<I", stream.read(4))[0])
if answer[1]:
    sys.exit(answer[4:].decode())
_, _, kind, _, version, count, outputs, width = struct.unpack_from("<BBBBQIII", answer)
values = struct.unpack_from(f"<{count * outputs}f", answer, 24)
for at in range(0, len(values), outputs):
    print(max(range(outputs), key=lambda unit: values[at + unit]))
