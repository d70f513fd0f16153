// Package testnet gives tests a network of their own, where the system lets them.
package testnet
