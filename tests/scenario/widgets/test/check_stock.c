#include <stdio.h>

#include "stock.h"

int main(void)
{
	struct stock_line lines[2] = { { .pieces = 3 }, { .pieces = 1 } };

	if (widget_init(&lines[0].widget, "bolt", 25) || widget_init(&lines[1].widget, "gear", 950))
		return 1;
	if (widget_init(&lines[0].widget, "", 1) != -1)
		return 1;
	if (stock_value_cents(lines, 2) != 1025) {
		fputs("wrong stock value\n", stderr);
		return 1;
	}
	puts("stock: ok");
	return 0;
}
