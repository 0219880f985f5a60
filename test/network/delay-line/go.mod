module spegel-ts/test/network/delay-line

go 1.21
