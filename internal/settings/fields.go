package settings

import (
	"errors"
	"fmt"
	"time"

	"github.com/surgetank/surgetank"
)

type (
	timeDuration = time.Duration
	config       = surgetank.QueueConfig
)

func text(path string, at func(*config) *string) field {
	return field{path,
		func(c *config, v any) error {
			s, ok := v.(string)
			if !ok || s == "" {
				return fmt.Errorf("want text, not %s", shownAs(v))
			}
			*at(c) = s
			return nil
		},
		func(c *config) any { return unlessZero(*at(c)) },
	}
}

func flag(path string, at func(*config) *bool) field {
	return field{path,
		func(c *config, v any) error {
			b, ok := v.(bool)
			if !ok {
				return fmt.Errorf("want true or false, not %s", shownAs(v))
			}
			*at(c) = b
			return nil
		},
		func(c *config) any { return unlessZero(*at(c)) },
	}
}

// count is a whole number of at least least.
func count(path string, least int64, at func(*config) *int) field {
	return field{path,
		func(c *config, v any) error {
			n, err := wholeNumber(v)
			if err != nil {
				return err
			}
			if n < least || n > 1<<30 {
				return fmt.Errorf("want a number between %d and %d, not %d", least, 1<<30, n)
			}
			*at(c) = int(n)
			return nil
		},
		func(c *config) any { return unlessZero(*at(c)) },
	}
}

func rate(path string, at func(*config) *surgetank.Rate) field {
	return field{path,
		func(c *config, v any) (err error) {
			*at(c), err = rateOf(v)
			return err
		},
		func(c *config) any {
			if *at(c) == 0 {
				return nil
			}
			return FormatRate(*at(c))
		},
	}
}

// duration is a time span; zero says whether 0 is a meaning of its own (no limit) or refused.
func duration(path string, zero bool, at func(*config) *timeDuration) field {
	return field{path,
		func(c *config, v any) error {
			d, err := durationOf(v)
			switch {
			case err != nil:
				return err
			case d < 0 || d == 0 && !zero:
				return fmt.Errorf("want a positive duration, not %v", d)
			}
			*at(c) = d
			return nil
		},
		func(c *config) any {
			if *at(c) == 0 {
				return nil
			}
			return FormatDuration(*at(c))
		},
	}
}

func size(path string, at func(*config) *int64) field {
	bytes := path == "max_bytes"
	return field{path,
		func(c *config, v any) (err error) {
			var n int64
			if bytes {
				n, err = sizeOf(v)
			} else {
				n, err = wholeNumber(v)
			}
			if err == nil && n < 0 {
				err = fmt.Errorf("want 0 (no limit) or more, not %d", n)
			}
			*at(c) = n
			return err
		},
		func(c *config) any {
			switch n := *at(c); {
			case n == 0:
				return nil
			case bytes:
				return FormatSize(n)
			default:
				return n
			}
		},
	}
}

// Unlimited as retry.max_attempts means that messages are never given up.
const Unlimited = "unlimited"

// attempts: in settings a key that is left out means the default, so that "no limit" needs a word.
func attempts(path string) field {
	return field{path,
		func(c *config, v any) error {
			if v == Unlimited {
				c.Retry.MaxAttempts = -1
				return nil
			}
			n, err := wholeNumber(v)
			if err != nil || n < 1 || n > 1<<30 {
				return fmt.Errorf("want a number of at least 1, or %q, not %s", Unlimited, shownAs(v))
			}
			c.Retry.MaxAttempts = int(n)
			return nil
		},
		func(c *config) any {
			if c.Retry.MaxAttempts < 0 {
				return Unlimited
			}
			return unlessZero(c.Retry.MaxAttempts)
		},
	}
}

// initialDelay: 0 is no delay here, which is negative in QueueConfig.
func initialDelay(path string) field {
	return field{path,
		func(c *config, v any) error {
			d, err := durationOf(v)
			switch {
			case err != nil:
				return err
			case d < 0:
				return fmt.Errorf("want 0s (no delay) or more, not %v", d)
			case d == 0:
				d = -1
			}
			c.Retry.Initial = d
			return nil
		},
		func(c *config) any {
			if c.Retry.Initial == 0 {
				return nil
			}
			return FormatDuration(max(0, c.Retry.Initial))
		},
	}
}

func factor(path string) field {
	return field{path,
		func(c *config, v any) error {
			f, err := number(v)
			if err != nil {
				return err
			}
			if !(f >= 1) {
				return fmt.Errorf("want a number of at least 1, not %v", f)
			}
			c.Retry.Factor = f
			return nil
		},
		func(c *config) any { return unlessZero(c.Retry.Factor) },
	}
}

// jitter: 0 is none here, which is negative in QueueConfig.
func jitter(path string) field {
	return field{path,
		func(c *config, v any) error {
			f, err := number(v)
			switch {
			case err != nil:
				return err
			case !(f >= 0 && f <= 1):
				return fmt.Errorf("want a number between 0 and 1, not %v", f)
			case f == 0:
				f = -1
			}
			c.Retry.Jitter = f
			return nil
		},
		func(c *config) any {
			if c.Retry.Jitter == 0 {
				return nil
			}
			return max(0, c.Retry.Jitter)
		},
	}
}

func deadLetter(path string) field {
	f := text(path, func(c *config) *string { return &c.DeadLetter })
	set := f.set
	f.set = func(c *config, v any) error {
		if err := set(c, v); err != nil {
			return err
		}
		// A plain name only: one that named a virtual host would be a way around its permissions.
		return surgetankError(surgetank.ValidateName("queue", c.DeadLetter))
	}
	return f
}

func overflow(path string) field {
	return field{path,
		func(c *config, v any) error {
			s, _ := v.(string)
			switch o := surgetank.Overflow(s); o {
			case surgetank.OverflowReject, surgetank.OverflowDropOldest, surgetank.OverflowDeadLetter:
				c.Overflow = o
				return nil
			}
			return fmt.Errorf("want reject, drop_oldest or dead_letter, not %s", shownAs(v))
		},
		func(c *config) any { return unlessZero(string(c.Overflow)) },
	}
}

func priority(path string) field {
	return field{path,
		func(c *config, v any) error {
			n, err := wholeNumber(v)
			if err != nil || n < 0 || n > surgetank.MaxPriority {
				return fmt.Errorf("want a number between 0 and %d, not %s", surgetank.MaxPriority, shownAs(v))
			}
			c.MaxPriority = uint8(n)
			return nil
		},
		func(c *config) any { return unlessZero(int(c.MaxPriority)) },
	}
}

// unlessZero gives v for the tree, nil for its zero value.
func unlessZero[T comparable](v T) any {
	var zero T
	if v == zero {
		return nil
	}
	return v
}

// surgetankError keeps the sentence of an error for Decode to put the path in front.
func surgetankError(err error) error {
	if err == nil {
		return nil
	}
	return errors.New(err.Error())
}
