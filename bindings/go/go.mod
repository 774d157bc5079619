module libdwf/bindings/go

go 1.22
