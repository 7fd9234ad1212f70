module longtake

go 1.26
