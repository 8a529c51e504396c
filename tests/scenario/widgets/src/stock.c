#include "stock.h"

unsigned long stock_value_cents(const struct stock_line *lines, size_t count)
{
	unsigned long total = 0;

	for (size_t i = 0; i < count; i++)
		total += (unsigned long)lines[i].widget.price_cents * lines[i].pieces;
	return total;
}
