module weir.test/bench/peer

go 1.21
