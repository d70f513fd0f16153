// Package sim has links that lose, delay, reorder, duplicate and damage messages, in
// virtual time and from a seed: the same seed gives the same run. A [Link] only computes; whoever
// uses it schedules the deliveries, on a [Clock] for single-threaded simulations or with real
// timers inside a testing/synctest bubble.
//
// The tests here simulate whole sessions of the engine, with crashes and restarts.
package sim
