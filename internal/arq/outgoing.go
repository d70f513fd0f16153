package arq

type outgoing struct{}
