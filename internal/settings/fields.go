package settings

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/surgetank/surgetank"
)

type (
	timeDuration = time.Duration
	config       = surgetank.QueueConfig
)

// Unlimited is the value of retry.max_attempts for messages that are tried without end.
const Unlimited = "unlimited"

// WithDefaults returns c with the default in every zero field that has one.
func WithDefaults(c surgetank.QueueConfig) surgetank.QueueConfig {
	for i := range Table {
		s := &Table[i]
		v := s.Default
		if s.DefaultOf != nil {
			v = s.DefaultOf(&c)
		}
		if into := reflect.ValueOf(s.at(&c)).Elem(); v != nil && into.IsZero() {
			into.Set(reflect.ValueOf(v))
		}
	}
	return c
}

// WithoutNeedless returns c with zero in the fields that need another setting and have their computed
// default. Without this, a queue whose settings have defaults could not remove that other setting.
func WithoutNeedless(c surgetank.QueueConfig) surgetank.QueueConfig {
	for i := range Table {
		s := &Table[i]
		if s.Needs == "" || s.DefaultOf == nil {
			continue
		}
		at := reflect.ValueOf(s.at(&c)).Elem()
		value := reflect.ValueOf(at.Interface())
		at.SetZero()
		if !value.Equal(reflect.ValueOf(s.DefaultOf(&c))) {
			at.Set(value)
		}
	}
	return c
}

// Equal reports whether two queues with these settings behave the same.
func Equal(a, b surgetank.QueueConfig) bool {
	return reflect.DeepEqual(plain(WithDefaults(a)), plain(WithDefaults(b)))
}

// Validate returns CodeInvalid for settings that no queue can have, with the path as Field.
func Validate(c surgetank.QueueConfig) error {
	for i := range Table {
		s := &Table[i]
		if err := s.check(s.at(&c)); err != nil {
			return surgetank.FieldErrorf(s.Path, "%s: %s", s.Path, err)
		}
		if s.Needs != "" && !reflect.ValueOf(s.at(&c)).Elem().IsZero() && reflect.ValueOf(Find(s.Needs).at(&c)).Elem().IsZero() {
			value := ""
			if _, is := Find(s.Needs).at(&c).(*bool); is {
				value = ": true"
			}
			return surgetank.FieldErrorf(s.Path, "%s: it has an effect only with %s%s; set %[2]s, too, or leave %[1]s out", s.Path, s.Needs, value)
		}
	}
	return nil
}

// check checks the value of a field. A zero field means the default and is always valid.
func (s *Setting) check(at any) error {
	switch p := at.(type) {
	case *string:
		if *p != "" && s.Check != nil {
			return s.Check(*p)
		}
	case *surgetank.Overflow, *surgetank.Keep, *surgetank.BreakerMode:
		if v := reflect.ValueOf(p).Elem().String(); v != "" && !slices.Contains(s.Choices, v) {
			return s.wrongChoice(v)
		}
	case *surgetank.AdaptiveConfig:
		return checkAdaptive(p)
	case *bool, *time.Time:
	case *map[string]int:
		return s.checkNames(*p)
	case *reasonRules:
		return checkRules(*p)
	default:
		n := numberOf(at)
		if n == 0 || n < 0 && s.None != "" {
			return nil
		}
		if !(n >= s.Min && n <= s.max(at)) {
			return s.outside(at)
		}
	}
	return nil
}

// numberOf returns the number at a pointer.
func numberOf(at any) float64 {
	v := reflect.ValueOf(at).Elem()
	switch {
	case v.CanInt():
		return float64(v.Int())
	case v.CanUint():
		return float64(v.Uint())
	}
	return v.Float()
}

// max returns the upper limit of a number.
func (s *Setting) max(at any) float64 {
	switch {
	case s.Max > 0:
		return s.Max
	case isDuration(at):
		return float64(surgetank.MaxDuration)
	}
	return 1 << 63
}

func isDuration(at any) bool {
	_, is := at.(*timeDuration)
	return is
}

// outside returns the error for a number outside its limits.
func (s *Setting) outside(at any) error {
	show := func(n float64) any {
		switch at.(type) {
		case *timeDuration:
			return FormatDuration(timeDuration(n))
		case *float64, *surgetank.Rate:
			return n
		}
		return int64(n)
	}
	given := show(numberOf(at))
	switch {
	case s.None == Unlimited:
		return fmt.Errorf("want a number of at least %v, or %q, not %v", show(s.Min), s.None, given)
	case isDuration(at) && s.Min == 1:
		return fmt.Errorf("want a positive duration of at most %v, not %v", show(s.max(at)), given)
	case s.Max == 0 && !isDuration(at):
		return fmt.Errorf("want a number of at least %v, not %v", show(s.Min), given)
	}
	return fmt.Errorf("want a value between %v and %v, not %v", show(s.Min), show(s.max(at)), given)
}

func (s *Setting) wrongChoice(v any) error {
	last := len(s.Choices) - 1
	return fmt.Errorf("want %s or %s, not %s", strings.Join(s.Choices[:last], ", "), s.Choices[last], shownAs(v))
}

// set decodes v, which is not nil, into the setting's field. Its error is a sentence without the
// path.
func (s *Setting) set(c *config, v any) error {
	at := s.at(c)
	if into, is := at.(*map[string]int); is {
		return s.readNames(into, v)
	}
	if into, is := at.(*reasonRules); is {
		return readRules(into, v)
	}
	if into, is := at.(*surgetank.AdaptiveConfig); is {
		return readAdaptive(into, v)
	}
	if s.None != "" && v == s.None {
		s.setNone(at)
		return nil
	}
	if err := s.read(at, v); err != nil {
		return err
	}
	if _, isTime := at.(*time.Time); isTime {
		return nil
	}
	if number := reflect.ValueOf(at).Elem(); number.IsZero() && number.Kind() != reflect.Bool {
		switch {
		case s.None == Unlimited || s.None == "" && s.Min > 0:
			return s.outside(at)
		case s.None != "":
			s.setNone(at)
			return nil
		}
	} else if number.Kind() != reflect.String && number.Kind() != reflect.Bool && numberOf(at) < 0 {
		return s.outside(at) // only None sets a field to a negative number
	}
	return s.check(at)
}

// setNone stores the value for None: -1. Users cannot write -1 as a number.
func (s *Setting) setNone(at any) {
	switch p := at.(type) {
	case *int:
		*p = -1
	case *timeDuration:
		*p = -1
	case *float64:
		*p = -1
	}
}

// read decodes a value of the tree into a field, by the field's type.
func (s *Setting) read(at, v any) (err error) {
	switch p := at.(type) {
	case *string:
		text, ok := v.(string)
		if !ok || text == "" {
			return fmt.Errorf("want text, not %s", shownAs(v))
		}
		if s.Plain { // with a full name, a user could reach a virtual host without rights on it
			if err := surgetank.ValidateName("queue", text); err != nil {
				return sentence(err)
			}
		}
		*p = text
	case *surgetank.Overflow, *surgetank.Keep, *surgetank.BreakerMode:
		text, _ := v.(string)
		if !slices.Contains(s.Choices, text) {
			return s.wrongChoice(v)
		}
		reflect.ValueOf(p).Elem().SetString(text)
	case *bool:
		flag, ok := v.(bool)
		if !ok {
			return fmt.Errorf("want true or false, not %s", shownAs(v))
		}
		*p = flag
	case *timeDuration:
		*p, err = durationOf(v)
	case *time.Time:
		*p, err = timeOf(v)
	case *surgetank.Rate:
		*p, err = rateOf(v)
	case *float64:
		*p, err = number(v)
	case *int64:
		if s.Bytes {
			*p, err = sizeOf(v)
		} else {
			*p, err = wholeNumber(v)
		}
	case *int, *uint8:
		n, err := wholeNumber(v)
		into := reflect.ValueOf(at).Elem()
		if err != nil {
			if s.None != "" {
				return fmt.Errorf("want a number of at least %v, or %q, not %s", int64(s.Min), s.None, shownAs(v))
			}
			return err
		}
		if wide := int(n); float64(n) > s.Max || n < 0 {
			return s.outside(&wide)
		}
		if into.CanInt() {
			into.SetInt(n)
		} else {
			into.SetUint(uint64(n))
		}
	}
	return err
}

// get returns the value to write, or nil if the field is zero.
func (s *Setting) get(c *config) any {
	at := s.at(c)
	v := reflect.ValueOf(at).Elem()
	if v.IsZero() {
		return nil
	}
	none := v.CanInt() && v.Int() < 0 || v.CanFloat() && v.Float() < 0
	switch p := at.(type) {
	case *timeDuration:
		return FormatDuration(max(0, *p))
	case *time.Time:
		return p.UTC().Format(time.RFC3339Nano)
	case *surgetank.Rate:
		return FormatRate(*p)
	case *surgetank.Overflow, *surgetank.Keep, *surgetank.BreakerMode:
		return v.String()
	case *surgetank.AdaptiveConfig:
		return writeAdaptive(*p)
	case *int64:
		if s.Bytes {
			return FormatSize(*p)
		}
	case *float64:
		return max(0, *p)
	case *uint8:
		return int(*p)
	case *map[string]int:
		return writeNames(*p)
	case *reasonRules:
		return writeRules(*p)
	}
	if none {
		return s.None
	}
	return v.Interface()
}

// sentence returns the text of an error, so that a path can be put before it.
func sentence(err error) error {
	if err == nil {
		return nil
	}
	return errors.New(err.Error())
}
