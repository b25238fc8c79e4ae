package model

import "github.com/surgetank/surgetank"

func due(tat int64, r surgetank.Rate, burst int) int64 {
	return tat - int64(1e9/float64(r))*int64(max(1, burst)-1)
}

func spend(tat *int64, r surgetank.Rate, now int64) {
	if r > 0 {
		*tat = max(*tat, now) + int64(1e9/float64(r))
	}
}
