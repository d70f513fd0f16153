// Package pixferry is documentation only; see its folders.
package pixferry
