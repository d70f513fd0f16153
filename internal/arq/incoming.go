package arq

type incoming struct{}
