package route_test

import (
	"fmt"
	"log"

	"github.com/go-usher/usher/internal/route"
)

func Example() {
	matches := []route.Match{
		{},
		{Hosts: []string{"*.example.com"}},
		{Hosts: []string{"shop.example.com"}, Path: "/api/"},
	}
	table, err := route.New(matches)
	if err != nil {
		log.Fatal(err)
	}
	for _, q := range []route.Query{
		{Host: "shop.example.com", Path: "/api/cart"},
		{Host: "shop.example.com", Path: "/cart"},
		{Host: "blog.example.org", Path: "/"},
	} {
		if i, ok := table.Lookup(&q); ok {
			fmt.Printf("%s%s: %v\n", q.Host, q.Path, matches[i])
		}
	}
	// Output:
	// shop.example.com/api/cart: shop.example.com/api/
	// shop.example.com/cart: *.example.com
	// blog.example.org/: everything
}
